-- Look at a page of the keyspace, or at the given keys, and answer with those that are suspect.
-- KEYS: keys to look at; none: a page. ARGV: rule, cursor, pattern, how many to scan
-- answers {cursor, keys seen, suspects}: for each suspect its key's bytes, its own bytes in memory
-- (4 bytes each, big end first), the reason (1), the key
local rule = rule_of(ARGV[1])
local cursor, keys = '0', KEYS
if #KEYS == 0 then
  local page = call('SCAN', ARGV[2], 'MATCH', ARGV[3], 'COUNT', ARGV[4])
  cursor, keys = page[1], page[2]
end

local found = {}
for i = 1, #keys do
  local key = keys[i]
  local reason = judge(key, rule)
  if reason then
    local size = math.min(call('MEMORY', 'USAGE', key) or 0, 4294967295)
    found[#found + 1] = struct.pack('>I4I4', #key, size) .. reason .. key
  end
end
return {cursor, #keys, table.concat(found)}
