-- Look at a page of the keyspace, or at the given keys, and answer with those that are corrupted.
-- KEYS: keys to look at; none: a page. ARGV: rule, cursor, pattern, how many to scan, bytes of
-- dumps to bring along, whether PEXPIRETIME is known (0|1)
-- answers {cursor, keys seen, records, reasons, suspects}: records as recovery.components.redis.archive
-- packs them, a reason for each, and those without a dump: for each its key's bytes, its own bytes
-- in memory (4 bytes each, big end first), the reason (1), the key
local rule, room, exact = rule_of(ARGV[1]), tonumber(ARGV[5]), ARGV[6] == '1'
local cursor, keys = '0', KEYS
if #KEYS == 0 then
  local page = call('SCAN', ARGV[2], 'MATCH', ARGV[3], 'COUNT', ARGV[4])
  cursor, keys = page[1], page[2]
end

local records, reasons, suspects = {}, {}, {}
for i = 1, #keys do
  local key = keys[i]
  local reason = judge(key, rule)
  if reason then
    local size = math.min(call('MEMORY', 'USAGE', key) or 0, 4294967295)
    if size > room or reason == 'v' or reason == 'u' then
      suspects[#suspects + 1] = struct.pack('>I4I4', #key, size) .. reason .. key
    else
      records[#records + 1] = record(key, call('DUMP', key), exact)
      reasons[#reasons + 1] = reason
      room = room - size
    end
  end
end
return {cursor, #keys, table.concat(records), table.concat(reasons), table.concat(suspects)}
