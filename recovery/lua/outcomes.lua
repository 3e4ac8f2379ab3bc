-- What came of a target's recoveries, newest first, and the time by which they are judged: as a
-- script, because a pipeline costs the dispatcher more than all else that it does before the gate.
-- ARGV: prefix, target
-- answers {now ms, outcome (JSON) ...}
return {now, unpack(redis.call('LRANGE', key('outcomes', ARGV[2]), 0, -1))}
