# The executor: kernels and the node daemon. torch brings its own CUDA runtime.
FROM python:3.12.12-slim-bookworm

# Triton compiles a small launcher, and CPUs run C++ of our own (docs/kernels.md).
RUN apt-get update \
    && apt-get install --no-install-recommends -y g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/hplb
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN pip install --no-cache-dir -c constraints.txt torch triton
COPY profiles profiles
COPY solver solver
COPY executor executor
COPY api api
RUN pip install --no-cache-dir -c constraints.txt '.[executor]' \
    && useradd --system --uid 10001 hplb \
    && install -d -o hplb /var/lib/hplb

# Compiled kernels and fetched models are caches of the home folder; the root may be read-only.
ENV HOME=/tmp
# By number: Kubernetes must see that it is not root.
USER 10001
VOLUME /var/lib/hplb
ENTRYPOINT ["hplb", "executor", "--state-dir", "/var/lib/hplb"]
CMD ["--server", "http://planner:8000", "--devices", "1"]
