#!/usr/bin/env bash
# Makes what docker-compose.yml reads: the secrets, each once, in compose/secrets, and compose/.env.
# Run it before the first `docker compose up`; to change a secret, remove its file, run this, and
# start the stack again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly passwords='redis_password http_token http_read_token flower_password grafana_password openwebui_password'

# Encrypts tokens at rest: 32 bytes as Fernet takes them.
new_key() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'; }
new_password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

make_once() {
  [ -s "secrets/$1" ] && return
  (umask 022; "$2" >"secrets/$1")
  printf 'secrets: made compose/secrets/%s\n' "$1" >&2
}

# The folder keeps others out; inside the containers each service reads its own as another user.
install -d -m 0700 secrets
for name in $passwords; do make_once "$name" new_password; done
make_once secret_key new_key
[ -e .env ] || install -m 0600 .env.example .env
