#!/usr/bin/env bash
# Makes the secrets that docker-compose.yml reads, each once, in compose/secrets. Run it before the
# first `docker compose up`; to change one, remove its file, run this, and start the stack again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# The folder keeps others out; inside the containers each service reads its own as another user.
install -d -m 0700 secrets
for name in redis_password http_token http_read_token flower_password grafana_password; do
  [ -s "secrets/$name" ] && continue
  (umask 022; od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"secrets/$name")
  printf 'secrets: made compose/secrets/%s\n' "$name" >&2
done
