# syntax=docker/dockerfile:1
# One image for every service: the subcommand says which. `docker compose up --build` builds it.

FROM rust:1.95-slim-bookworm AS build
# SQLite and librdkafka are compiled from source.
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ make pkg-config zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches keep what was fetched and compiled from one build to the next, so that an edit costs the crates it touches.
# They are not part of the image, hence the copy.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/usr/local/cargo/git \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p omisys --features omisys/cluster \
 && install -D target/release/omisys /out/omisys

FROM debian:12-slim
# What the binary links to (libc, libgcc, perhaps zlib) is in the base image.
COPY --from=build /out/omisys /usr/local/bin/omisys
# A new volume takes the owner and mode of the folder it is mounted on.
RUN install -d -o 10001 -g 10001 -m 0700 /data /keys
ENV OMISYS_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["omisys"]
CMD ["--help"]
