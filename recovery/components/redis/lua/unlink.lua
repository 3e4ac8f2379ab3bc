-- Remove the keys that are still what was kept of them: same value, same expiry.
-- KEYS: keys. ARGV: digests of their dumps (40 characters each), expiries (8 bytes each, big end
-- first), whether PEXPIRETIME is known (0|1), by how many ms an expiry may differ
-- answers one character a key: 1 removed, 0 changed and left, - not there
local digests, expiries, exact, slack = ARGV[1], ARGV[2], ARGV[3] == '1', tonumber(ARGV[4])

local answers = {}
for i = 1, #KEYS do
  local key = KEYS[i]
  local dump = call('DUMP', key)
  if not dump then
    answers[i] = '-'
  else
    local was = struct.unpack('>i8', expiries, i * 8 - 7)
    local is = expiry(key, exact)
    local same_expiry = was == is or (was > 0 and is > 0 and math.abs(was - is) <= slack)
    if same_expiry and redis.sha1hex(dump) == digest_at(digests, i) then
      call('UNLINK', key)
      answers[i] = '1'
    else
      answers[i] = '0'
    end
  end
end
return table.concat(answers)
