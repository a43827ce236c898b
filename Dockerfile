# docker build --tag authlink/authlink:0.1.0 .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The C compiler of this image is enough for the TLS library on linux/amd64 and linux/arm64; others also need cmake.
RUN cargo build --release --locked --bin authlink

FROM debian:bookworm-slim
COPY --from=build /src/target/release/authlink /usr/local/bin/authlink
COPY LICENSE /usr/share/doc/authlink/
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="authlink" \
      org.opencontainers.image.description="A Kubernetes operator that connects an authentication platform with everything around it" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A number, so that runAsNonRoot can be checked.
USER 65532:65532
# Probes and metrics; the gateway.
EXPOSE 8080 8081
ENTRYPOINT ["/usr/local/bin/authlink"]
CMD ["run"]
