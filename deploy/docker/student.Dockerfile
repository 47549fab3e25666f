# The student: trains adapters, keeps versions, answers. No weights (they are mounted), no keys.
#   docker build -f deploy/docker/student.Dockerfile -t seal-student .
# On a CPU: --build-arg VARIANT=-cpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
# In production name the base by its digest: --build-arg BASE=docker.io/library/python:3.11.14-slim-bookworm@sha256:...
# checkov:skip=CKV_DOCKER_7: the argument names a full version, and a digest in production
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ARG VARIANT=""
ARG TORCH_INDEX=""
WORKDIR /build
COPY requirements/image-build.txt requirements/cpu-torch.txt requirements/image-student.txt requirements/image-student-cpu.txt requirements/
# The environment gets no pip of its own: what is in it is what is locked. The GPU's lock holds torch and CUDA's libraries.
RUN python -m venv --without-pip /opt/seal \
    && if [ "${VARIANT}" = "-cpu" ]; then \
        python -m pip --python /opt/seal/bin/python install --no-cache-dir --no-deps --require-hashes \
            ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} -r requirements/cpu-torch.txt; \
    fi \
    && python -m pip --python /opt/seal/bin/python install --no-cache-dir --no-deps --require-hashes \
        -r "requirements/image-student${VARIANT}.txt"
RUN python -m venv wheel-tools \
    && wheel-tools/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/image-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY common common
COPY student student
# The command line is the auditor's image's.
RUN wheel-tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && python -m pip --python /opt/seal/bin/python install --no-cache-dir --no-deps --no-index wheels/*.whl \
    && rm -f /opt/seal/bin/seal

FROM ${BASE} AS final
COPY --from=build /opt/seal /opt/seal
COPY deploy/docker/student.yaml /etc/seal/student.yaml
# The volumes belong to the user that the process runs as.
RUN install -d -o 10001 -g 10001 /var/lib/seal /cache
ENV PATH=/opt/seal/bin:$PATH HOME=/tmp USER=seal SEAL_CACHE=/cache PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/seal
VOLUME /var/lib/seal /cache
EXPOSE 50052 50062 9102
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=15m \
    CMD ["python", "-m", "common.rpc.probe", "127.0.0.1:50062", "seal.v1.StudentService"]
CMD ["python", "-m", "student", "--config", "/etc/seal/student.yaml"]
