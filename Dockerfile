# The browser's page: GraphiQL with all that it needs, so that it works where there is no other network.
FROM node:20-bookworm-slim AS web
WORKDIR /web
COPY web/package.json web/package-lock.json web/.npmrc ./
RUN npm ci
COPY web .
RUN npm run build

FROM rust:1-slim-bookworm AS build
WORKDIR /build
ENV CARGO_INCREMENTAL=0

# The dependencies are a layer of their own, built anew only when the manifests change. Every target that the manifest
# names has to be there.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src benches \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs benches/engines.rs \
    && cargo build --release --locked \
    && rm -r src

# Copied files keep their dates, and cargo would take the stand-ins built above for newer.
COPY build.rs ./
COPY src src
COPY --from=web /web/dist web/dist
RUN find build.rs src -type f -exec touch {} + \
    && cargo build --release --locked --bin pub-sub \
    && cp target/release/pub-sub /pub-sub \
    && mkdir /data

# glibc and libgcc, and nothing else: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="pub-sub" \
      org.opencontainers.image.description="A publish/subscribe service behind GraphQL, REST, WebSocket and server-sent events" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /pub-sub /usr/local/bin/pub-sub

# Where ENGINE=disk stores. It belongs to the image's user, and a new named volume that is mounted here takes that over,
# so that nobody has to change an owner first. Not a VOLUME: every container of the other engines would leave one behind.
COPY --from=build --chown=65532:65532 /data /data
ENV DATA_DIR=/data

# The image's user "nonroot" as a number, so that a cluster sees without looking inside that it is not root.
USER 65532:65532
EXPOSE 8080
# Stops softly: what was accepted is delivered and clients are told; after DRAIN_SECONDS it ends all the same.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/usr/local/bin/pub-sub", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/pub-sub"]
