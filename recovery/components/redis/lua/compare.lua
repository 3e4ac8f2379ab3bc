-- Whether keys are what was kept of them.
-- KEYS: a key that is free for a moment, then the keys. ARGV: whether sets and hashes may be
-- compared by loading what was kept into that free key (0|1), then the dumps
-- answers one character a key: = the same, ! other data, - not there
local scratch, deep = KEYS[1], ARGV[1] == '1'

local function same_members(key, kind)
  if kind == 'set' then
    return call('SCARD', key) == call('SCARD', scratch) and #call('SDIFF', key, scratch) == 0
  end
  if call('HLEN', key) ~= call('HLEN', scratch) then return false end
  local all = call('HGETALL', scratch)
  for i = 1, #all, 2 do
    if call('HGET', key, all[i]) ~= all[i + 1] then return false end
  end
  return true
end

-- The order of a set or hash in a dump depends on its table, so that equal ones may differ there.
local function is_same(key, dump)
  if call('DUMP', key) == dump then return true end
  local kind = call('TYPE', key).ok
  if not deep or (kind ~= 'set' and kind ~= 'hash') then return false end
  local loaded = redis.pcall('RESTORE', scratch, 0, dump, 'REPLACE')
  if type(loaded) == 'table' and loaded.err then return false end
  local same = call('TYPE', scratch).ok == kind and same_members(key, kind)
  call('UNLINK', scratch)
  return same
end

local answers = {}
for i = 2, #KEYS do
  if call('EXISTS', KEYS[i]) == 0 then
    answers[i - 1] = '-'
  else
    answers[i - 1] = is_same(KEYS[i], ARGV[i]) and '=' or '!'
  end
end
return table.concat(answers)
