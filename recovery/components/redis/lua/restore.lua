-- Bring keys back where nothing stands, or only what may be replaced.
-- KEYS: keys. ARGV: when they expire (8 bytes each, big end first; -1 never), for each key the
-- digest of the dump that may be replaced (40 characters each), then the dumps
-- answers one character a key: 1 restored, ! other data stands there
local expiries, digests = ARGV[1], ARGV[2]

local answers = {}
for i = 1, #KEYS do
  local key = KEYS[i]
  local stands = call('DUMP', key)
  if stands and redis.sha1hex(stands) ~= digest_at(digests, i) then
    answers[i] = '!'
  else
    local expires = math.max(struct.unpack('>i8', expiries, i * 8 - 7), 0)
    call('RESTORE', key, string.format('%.0f', expires), ARGV[i + 2], 'REPLACE', 'ABSTTL')
    answers[i] = '1'
  end
end
return table.concat(answers)
