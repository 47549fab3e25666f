# The auditor, and the command line: no model library, no weights, no keys.
#   docker build -f deploy/docker/auditor.Dockerfile -t seal-auditor .
# In production name the base by its digest: --build-arg BASE=docker.io/library/python:3.11.14-slim-bookworm@sha256:...
# checkov:skip=CKV_DOCKER_7: the argument names a full version, and a digest in production
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
COPY requirements/image-build.txt requirements/image-auditor.txt requirements/
# The environment gets no pip of its own: what is in it is what is locked.
RUN python -m venv --without-pip /opt/seal \
    && python -m pip --python /opt/seal/bin/python install --no-cache-dir --no-deps --require-hashes \
        -r requirements/image-auditor.txt
RUN python -m venv wheel-tools \
    && wheel-tools/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/image-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY common common
COPY cli cli
COPY auditor auditor
RUN wheel-tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && python -m pip --python /opt/seal/bin/python install --no-cache-dir --no-deps --no-index wheels/*.whl

FROM ${BASE} AS final
COPY --from=build /opt/seal /opt/seal
COPY deploy/docker/auditor.yaml /etc/seal/auditor.yaml
# The ledger's volume belongs to the user that the process runs as.
RUN install -d -o 10001 -g 10001 /var/lib/seal
ENV PATH=/opt/seal/bin:$PATH HOME=/tmp USER=seal PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/seal
VOLUME /var/lib/seal
EXPOSE 50053 50063 9103
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s \
    CMD ["python", "-m", "common.rpc.probe", "127.0.0.1:50063", "seal.v1.AuditorService"]
CMD ["python", "-m", "auditor", "--config", "/etc/seal/auditor.yaml"]
