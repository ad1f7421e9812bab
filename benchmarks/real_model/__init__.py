"""What budgets cost a real pretrained model: SmolLM2-135M-Instruct, documents it never measured."""
