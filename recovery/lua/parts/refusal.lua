local DECISION_TTL = 60

-- A storm must leave a handful of lines: each burst is one counter with its first and last time.
local function note_refusal(id, target, component, strategy, reason, retry_after, detail)
  local burst = target .. '|' .. reason
  redis.call('HSET', key('refused:last'), burst, now)
  redis.call('HINCRBY', key('counters'), 'refused|' .. component .. '|' .. reason, 1)
  if redis.call('HINCRBY', key('refused:count'), burst, 1) == 1 then
    redis.call('HSET', key('refused:first'), burst, now)
    audit(cjson.encode({id = id, target = target, strategy = strategy, result = 'refused',
      reason = reason, detail = detail}))
  end
  local answer = {recovery_id = id, verdict = 'refused', strategy = strategy, reason = reason,
    detail = detail}
  if retry_after > 0 then answer.retry_after = retry_after / 1000 end
  redis.call('SET', key('decision', id), cjson.encode(answer), 'EX', DECISION_TTL)
  -- Scheduled probes ask again when it may help, not with each look.
  local seen = key('observation', target)
  if redis.call('EXISTS', seen) == 1 then
    local pause = retry_after > 0 and reason ~= 'disabled' and retry_after or UNHELPED
    redis.call('HSET', seen, 'retry_ms', now + pause, 'refused', reason, 'refused_why', detail)
  end
end
