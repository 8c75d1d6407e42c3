# The engine's own image: every role of it, and the `orchestrator` command. No servers are in it.
#
#   docker build -t orchestrator .
#   docker run --rm orchestrator --help

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 UV_SYSTEM_CERTS=1 UV_NO_CACHE=1
WORKDIR /source
COPY requirements.lock requirements-runtime.lock ./
# uv, as everything else, comes from the lock and is checked by its hash.
RUN python3 -m venv /build \
    && awk '/^[^ #]/ {wanted = /^uv==/} wanted' requirements.lock > /build/bootstrap.txt \
    && /build/bin/python -m pip install --quiet --no-cache-dir --no-deps --require-hashes -r /build/bootstrap.txt
RUN python3 -m venv --without-pip /opt/orchestrator \
    && /build/bin/uv pip install --quiet --python /opt/orchestrator/bin/python --compile-bytecode \
        --require-hashes -r requirements-runtime.lock
# The sources come last: a change of them leaves the layers above as they are.
COPY pyproject.toml README.md worker.py ./
COPY activities activities
COPY cli cli
COPY engine engine
COPY gateway gateway
COPY hooks hooks
COPY planner planner
COPY workflows workflows
COPY sdk sdk
RUN /build/bin/uv build --quiet --wheel --build-constraints requirements.lock --require-hashes --out-dir /wheels . \
    && /build/bin/uv build --quiet --wheel --build-constraints requirements.lock --require-hashes --out-dir /wheels sdk \
    && /build/bin/uv pip install --quiet --python /opt/orchestrator/bin/python --compile-bytecode \
        --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="orchestration-engine" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 10001 orchestrator \
    && useradd --system --uid 10001 --gid orchestrator --no-create-home --home-dir /nonexistent orchestrator \
    && install -d -m 0700 -o orchestrator -g orchestrator /var/lib/orchestrator
COPY --from=builder /opt/orchestrator /opt/orchestrator
ENV PATH=/opt/orchestrator/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORCHESTRATOR_DATA_DIR=/var/lib/orchestrator \
    ORCHESTRATOR_HOST=0.0.0.0 \
    ORCHESTRATOR_PORT=8002 \
    ORCHESTRATOR_LOG_JSON=true
WORKDIR /var/lib/orchestrator
VOLUME /var/lib/orchestrator
USER 10001:10001
EXPOSE 8002
# Right for the gateway, which is the default command; docker-compose.yml has others for the other roles.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"ORCHESTRATOR_PORT\"]}/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["orchestrator"]
CMD ["serve", "gateway"]
