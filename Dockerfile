# One image for the API, the worker and the CLI: `docker build -t control-plane .`
#
# Any base with glibc, CPython 3.11 or newer and pip will do, for instance a mirror of this one:
#   docker build --build-arg BASE_IMAGE=registry.example.com/python:3.13-slim .
ARG BASE_IMAGE=python:3.13-slim-trixie

FROM ${BASE_IMAGE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

# The environments have no pip of their own, so the final stage has no installer in what it copies.
RUN python3 -m venv --without-pip /opt/control-plane && python3 -m venv --without-pip /opt/backend
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN python3 -m pip --python /opt/control-plane/bin/python3 install \
        --require-hashes --only-binary :all: --requirement requirements.lock \
 && python3 -m pip --python /opt/backend/bin/python3 install \
        --require-hashes --only-binary :all: --requirement requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY control_plane control_plane
COPY sql sql
COPY tenant_templates tenant_templates
RUN /opt/backend/bin/python3 -m hatchling build --target wheel --directory /wheel \
 && python3 -m pip --python /opt/control-plane/bin/python3 install --no-index --no-deps /wheel/*.whl

FROM ${BASE_IMAGE}

ARG VERSION=dev
LABEL org.opencontainers.image.title="control-plane" \
      org.opencontainers.image.description="Multi-tenant control plane for PostgreSQL" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"

RUN groupadd --gid 10001 control-plane \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin control-plane

# The environment's bin folder stays off PATH: its console script `cp` would take the place of coreutils' cp.
COPY --from=build /opt/control-plane /opt/control-plane
RUN ln -s /opt/control-plane/bin/control-plane /usr/local/bin/control-plane

ENV CP_HOST=0.0.0.0 \
    CP_PORT=8000 \
    CP_HOME=/tmp/control-plane \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# By number, so that Kubernetes can tell that it is not root.
USER 10001:10001
WORKDIR /
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/opt/control-plane/bin/python3", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['CP_PORT']), timeout=3); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["/opt/control-plane/bin/control-plane"]
CMD ["serve"]
