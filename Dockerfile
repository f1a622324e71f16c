# The image of agent and controller: BASE with the programs that they start, and what `npm run build` made. It
# holds no npm and no sources. Run `npm run build` first:
#   docker build -t ghcr.io/weft-dev/weft:v0.1.0 .
ARG BASE=docker.io/library/node:24-bookworm-slim
FROM ${BASE}

# A base that has all programs already is left as it is.
RUN set -eu; \
    for program in nft iptables iptables-legacy conntrack; do \
      command -v "$program" >/dev/null || missing=yes; \
    done; \
    if [ "${missing:-}" = yes ]; then \
      apt-get update; \
      apt-get install -y --no-install-recommends nftables iptables conntrack; \
      rm -rf /var/lib/apt/lists/*; \
    fi; \
    rm -rf /usr/local/lib/node_modules /usr/local/bin/npm /usr/local/bin/npx /usr/local/bin/corepack \
      /opt/yarn-* /usr/local/bin/yarn /usr/local/bin/yarnpkg; \
    node --version

# What changes least comes first, so that an upgrade moves few bytes.
COPY dist/cni/ /weft/cni/
COPY dist/koffi/ /weft/koffi/
COPY dist/*.mjs /weft/

# Two malloc arenas instead of eight for each core: agent and controller keep 10 MB less.
ENV NODE_ENV=production MALLOC_ARENA_MAX=2
ENTRYPOINT ["node"]
CMD ["/weft/controller.mjs"]
