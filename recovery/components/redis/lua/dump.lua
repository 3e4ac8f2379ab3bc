-- Dump the keys that are still corrupted at this moment.
-- KEYS: suspects. ARGV: rule, whether PEXPIRETIME is known (0|1), for each key the digest of the
-- value that was read and judged, 40 characters each
-- answers records as recovery.components.redis.archive packs them
local rule, exact, digests = rule_of(ARGV[1]), ARGV[2] == '1', ARGV[3]

local found = {}
for i = 1, #KEYS do
  local key = KEYS[i]
  local reason = judge(key, rule)
  if reason == 'v' and redis.sha1hex(call('GET', key)) ~= digest_at(digests, i) then reason = nil end
  if reason and reason ~= 'u' then
    local dump = call('DUMP', key)
    if dump then found[#found + 1] = record(key, dump, exact) end
  end
end
return table.concat(found)
