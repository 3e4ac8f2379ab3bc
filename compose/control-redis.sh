#!/bin/sh
# Starts the control Redis with its password in a file of its own memory: an argument would show it.
set -eu
umask 077
cat >/run/redis/redis.conf <<CONF
bind * -::*
port 6379
dir /data
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
requirepass $(cat /run/secrets/redis_password)
CONF
exec redis-server /run/redis/redis.conf
