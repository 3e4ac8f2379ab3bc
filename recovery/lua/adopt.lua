-- Take in a recovery that a host ran while the control plane was away, to be concluded next.
-- ARGV: prefix, id, target, strategy, event, begun ms, ended ms, before, holder, record ttl s
-- answers {adopted|concluded, ''}; said again it changes nothing
local id, target, strategy, event = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local begun, ended, before, holder = ms(ARGV[6]), ms(ARGV[7]), ARGV[8], ARGV[9]
local record = key('recovery', id)

local known = redis.call('HGET', record, 'state')
if known then return known == 'concluded' and 'concluded' or 'adopted' end

-- A host's clock may be ahead of ours; nothing has happened in the future.
begun, ended = math.min(begun, now), math.min(ended, now)
redis.call('HSET', record, 'event', event, 'strategy', strategy, 'state', 'adopted',
  'received_ms', begun, 'started_ms', begun, 'happened_ms', ended, 'before', before, 'holder', holder)
redis.call('EXPIRE', record, ms(ARGV[10]))
redis.call('ZADD', key('attempts', target), begun, id)
return 'adopted'
