-- Put before every other script: when a key expires, and whether it breaks its keyspace's rule.
local call = redis.call

-- 40 characters that are no digest: nothing is claimed of this key.
local NONE = string.rep('-', 40)

local function digest_at(digests, i) return string.sub(digests, i * 40 - 39, i * 40) end

-- Epoch ms; -1 without a TTL, -2 without the key. Servers before 7.0 only know what is left.
local function expiry(key, exact)
  if exact then return call('PEXPIRETIME', key) end
  local left = call('PTTL', key)
  if left < 0 then return left end
  local now = call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000) + left
end

-- As recovery.components.redis.archive packs it.
local function record(key, dump, exact)
  return struct.pack('>I4I4i8', #key, #dump, expiry(key, exact)) .. key .. dump
end

-- The rule of a keyspace, from one argument: no TTL (0|1), type, shortest, longest, read values
-- (0|1), longest value read; '' where nothing is declared.
local function rule_of(text)
  local no_ttl, kind, shortest, longest, reads, cap =
    string.match(text, '^(%d),(%a*),(%d*),(%d*),(%d),(%d+)$')
  return {no_ttl = no_ttl == '1', kind = kind ~= '' and kind, shortest = tonumber(shortest) or 0,
    longest = tonumber(longest) or math.huge, reads = reads == '1', cap = tonumber(cap)}
end

-- Why a key is corrupted: t no TTL, k another type, l another length; v its value must be read,
-- u it is too long to be read; nil where it is healthy or gone.
local function judge(key, rule)
  if rule.no_ttl then
    local left = call('PTTL', key)
    if left == -2 then return nil end
    if left == -1 then return 't' end
  end
  if not rule.kind then return nil end
  local kind = call('TYPE', key).ok
  if kind == 'none' then return nil end
  if kind ~= rule.kind then return 'k' end
  if kind ~= 'string' then return nil end
  local length = call('STRLEN', key)
  if length < rule.shortest or length > rule.longest then return 'l' end
  if not rule.reads then return nil end
  return length > rule.cap and 'u' or 'v'
end
