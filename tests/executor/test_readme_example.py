import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_example_in_the_readme_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(compile(code, str(README), "exec"), {})
    assert capsys.readouterr().out.startswith("torch.Size([4, 301, 128]) 83 tensor(")
