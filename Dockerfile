# syntax=docker/dockerfile:1
# One image for everything: ordering-service, mls-gateway, and mls-client for `helm test`. The command names the program.
#
#   docker build -t concordat .
#   docker run --rm --read-only concordat ordering-service --help

FROM rust:1.91-bookworm AS build
# RocksDB's bindings are generated with libclang.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libclang-dev=1:14.0-* \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# RocksDB takes longest: it is kept in the cache mount, by its version.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/root/.cache/concordat \
    --mount=type=cache,target=/target \
    ROCKSDB_LIB_DIR="$(scripts/rocksdb.sh)" ROCKSDB_STATIC=1 CARGO_TARGET_DIR=/target \
    cargo build --release --locked -p ordering-service -p mls-gateway -p mls-client \
    && mkdir /out \
    && cp /target/release/ordering-service /target/release/mls-gateway /target/release/mls-client /out/

FROM debian:bookworm-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Concordat" \
      org.opencontainers.image.description="The delivery service for MLS groups: ordering nodes and gateways" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The system's CAs are for clients that check a gateway's public certificate.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates=20230311* libstdc++6=12.2.0-* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin concordat \
    && install -d -o 10001 -g 10001 /data
COPY --from=build /out/ /usr/local/bin/
USER 10001:10001
VOLUME /data
# 7100 API of nodes, 7200 nodes among themselves, 7300 their probes and metrics; 7400 API of gateways, 7401 their probes and metrics, 7402 gateways
# among themselves.
EXPOSE 7100 7200 7300 7400 7401 7402
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=6 CMD ["ordering-service", "probe"]
CMD ["ordering-service", "--help"]
