-- Whose files the sealed audit trail lies in: the first host that seals, until it is silent too long
-- or a person says otherwise.
-- ARGV: prefix, host, silence ms, take over (0|1)
-- answers {owner, 1 where the owner is to be asked to seal; once a day, that no queue fills up}
local host, silence = ARGV[2], ms(ARGV[3])
local held = redis.call('HMGET', key('audit', 'host'), 'host', 'seen', 'asked')

if held[1] and held[1] ~= host and ARGV[4] == '0' and now - ms(held[2]) < silence then
  if now - ms(held[3]) < 24 * HOUR then return {held[1], 0} end
  redis.call('HSET', key('audit', 'host'), 'asked', now)
  return {held[1], 1}
end
redis.call('HSET', key('audit', 'host'), 'host', host, 'seen', now)
redis.call('HDEL', key('audit', 'host'), 'asked')
return {host, 0}
