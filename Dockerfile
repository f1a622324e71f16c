# The image of agent and controller: Node, the programs that they start or people look with, and what `npm run build` made.
# It holds no shell, no package manager and no sources. Run `npm run build` first:
#   docker build -t ghcr.io/weft-dev/weft:v0.1.0 .
ARG BASE=docker.io/library/node:24-bookworm-slim
FROM ${BASE} AS base

# A base that has all programs already is left as it is.
RUN set -eu; \
    for program in nft iptables iptables-legacy conntrack; do \
      command -v "$program" >/dev/null || missing=yes; \
    done; \
    if [ "${missing:-}" = yes ]; then \
      apt-get update; \
      apt-get install -y --no-install-recommends nftables iptables conntrack; \
    fi; \
    node --version
COPY hack/image-root.sh /
RUN sh /image-root.sh /image-root

# Half of all bytes, and they change seldom: with a fixed time they are the same layers wherever they are built.
FROM base AS seldom
COPY dist/cni/ /cni/weft/cni/
COPY dist/koffi/ /koffi/weft/koffi/
RUN find /cni /koffi -exec touch -d @0 {} +

FROM scratch
# What changes least comes first, so that an upgrade moves few bytes.
COPY --from=base /image-root/debian/ /
COPY --from=base /image-root/node/ /
COPY --from=seldom /cni/ /
COPY --from=seldom /koffi/ /
COPY dist/*.mjs /weft/

# Two malloc arenas instead of eight for each core: agent and controller keep 10 MB less.
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin NODE_ENV=production MALLOC_ARENA_MAX=2
ENTRYPOINT ["node"]
CMD ["/weft/controller.mjs"]
