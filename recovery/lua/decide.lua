-- A person's word on a waiting recovery: the first one counts.
-- ARGV: prefix, id, decision (approved|denied), by, reason, force
-- answers {ok|not_pending|decided|unknown, who decided what}
-- include audit
local id, decision, by, reason, force = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local record = key('recovery', id)

local state = redis.call('HGET', record, 'state')
if not state then return {'unknown', ''} end
if state ~= 'awaiting_approval' then return {'not_pending', state} end
if redis.call('HSETNX', record, 'decision', decision) == 0 then
  local held = redis.call('HMGET', record, 'decision', 'decided_by')
  return {'decided', held[1] .. ' by ' .. held[2]}
end
redis.call('HSET', record, 'decided_by', by, 'decided_why', reason, 'decided_ms', now)
if force == '1' then redis.call('HSET', record, 'forced', 1) end
publish({kind = decision, id = id, by = by})
return {'ok', ''}
