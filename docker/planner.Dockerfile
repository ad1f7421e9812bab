# The planner: HTTP service and solvers, without torch.
FROM python:3.12.12-slim-bookworm

WORKDIR /opt/hplb
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY profiles profiles
COPY solver solver
COPY executor executor
COPY api api
RUN pip install --no-cache-dir -c constraints.txt '.[otel,postgres]' \
    && useradd --system --uid 10001 hplb

# By number: Kubernetes must see that it is not root. Nothing is written but below /tmp.
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import httpx; httpx.get('http://127.0.0.1:8000/healthz', trust_env=False).raise_for_status()"]
# Binding beyond loopback needs HPLB_API_KEY; without it the service refuses to start.
CMD ["hplb", "serve", "--host", "0.0.0.0", "--port", "8000"]
