# Builds an image for the architecture of this machine, or with `docker buildx build --platform linux/amd64,linux/arm64` for
# others, too. Everything that is built runs on this machine's own architecture (BUILDPLATFORM).

# The pages for browsers: the console and GraphiQL with everything that they need, so that they work without another network.
FROM --platform=$BUILDPLATFORM node:20-bookworm-slim AS web
WORKDIR /web
COPY web/package.json web/package-lock.json web/.npmrc ./
RUN npm ci
COPY web .
RUN npm run build

FROM --platform=$BUILDPLATFORM rust:1-slim-bookworm AS build
WORKDIR /build
ENV CARGO_INCREMENTAL=0

# The architectures of this machine and of the image. If they differ, this installs a cross-compiler, and the builds below use
# it.
ARG BUILDARCH
ARG TARGETARCH
RUN case "$TARGETARCH" in \
        "$BUILDARCH") exit ;; \
        amd64) name=x86_64 package=x86-64 ;; \
        arm64) name=aarch64 package=aarch64 ;; \
        *) echo "there is no cross-compiler for $TARGETARCH here" >&2; exit 1 ;; \
    esac \
    && apt-get update -qq \
    && apt-get install -qqy --no-install-recommends "gcc-$package-linux-gnu" "libc6-dev-$TARGETARCH-cross" \
    && rm -rf /var/lib/apt/lists/* \
    && rustup target add "$name-unknown-linux-gnu" \
    && printf '[build]\ntarget = "%s-unknown-linux-gnu"\n[target.%s-unknown-linux-gnu]\nlinker = "%s-linux-gnu-gcc"\n' \
        "$name" "$name" "$name" > "$CARGO_HOME/config.toml"

# The dependencies have their own layer, which is built again only when the manifests change. Every target that the
# manifest names has to exist.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src benches \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs benches/engines.rs benches/graphql.rs \
    && cargo build --release --locked \
    && rm -r src

# Copied files keep their dates, so cargo would consider the stand-ins that were built above to be newer. `touch`
# prevents this.
COPY build.rs ./
COPY src src
COPY --from=web /web/dist web/dist
RUN find build.rs src -type f -exec touch {} + \
    && cargo build --release --locked --bin pub-sub \
    && find target -path '*/release/pub-sub' -type f -exec cp {} /pub-sub ';' \
    && mkdir /data

# This image contains glibc and libgcc, and nothing else: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="pub-sub" \
      org.opencontainers.image.description="A publish/subscribe service behind GraphQL, REST, WebSocket and server-sent events" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /pub-sub /usr/local/bin/pub-sub

# ENGINE=disk stores its data here. The directory belongs to the image's user, and a new named volume that is mounted
# here inherits the owner, so nobody has to change it. It is not a VOLUME, because every container of the other engines
# would leave one behind.
COPY --from=build --chown=65532:65532 /data /data
ENV DATA_DIR=/data

# This is the image's user "nonroot". A number lets a cluster see that it is not root without looking into the image.
USER 65532:65532
EXPOSE 8080
# SIGTERM stops the server gracefully: it delivers what it has accepted and tells clients to reconnect. After
# DRAIN_TIMEOUT it ends in any case.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/usr/local/bin/pub-sub", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/pub-sub"]
