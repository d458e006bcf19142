# farm's controller, head and site in one image.
#
#   docker build -t farm .          --build-arg PIP_EXTRA_INDEX_URL=URL  takes torch from an index of
#                                   CPU builds where pip's own index has only torch with CUDA
#   controller:   docker run --rm --network host -v farm:/var/lib/farm -v "$PWD":/work farm run configs/tiny.yaml
#   head:         docker run --rm --network host --shm-size 2g -v farm:/var/lib/farm farm \
#                   cluster up --foreground --interface eth0
#   site:         docker run --rm --network host --shm-size 2g -v farm:/var/lib/farm \
#                   -v /etc/farm/token:/token:ro farm site join HEAD:6379 --token /token --foreground
#   USB devices:  run the adb server on the host; with --network host the container finds it.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# The compiler stays: the native runner is built on the host that starts it.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      adb ca-certificates g++ make openssh-client \
 && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/farm/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    RAY_USAGE_STATS_ENABLED=0
WORKDIR /opt/farm
ARG PIP_EXTRA_INDEX_URL

# Dependencies first: an edit of farm's own code then rebuilds in seconds.
COPY pyproject.toml constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv venv \
 && pip install -c constraints.txt --upgrade pip setuptools \
 && python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
 && pip install -c constraints.txt --no-build-isolation -r requirements.txt

COPY farm farm
COPY runners runners
COPY models models
COPY configs configs
RUN pip install --no-deps --no-build-isolation --no-index --editable . \
 && python -m compileall -q farm runners models

# UID 1000 is most people's own, so that mounted folders stay theirs.
RUN useradd --create-home --uid 1000 farm \
 && mkdir -p /var/lib/farm /work \
 && chown farm:farm /var/lib/farm /work
ENV FARM_HOME=/var/lib/farm
VOLUME ["/var/lib/farm"]
WORKDIR /work
USER farm
ENTRYPOINT ["farm"]
CMD ["--help"]
