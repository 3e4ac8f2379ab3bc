-- Remember an event that never reached the gate: it names nothing known, or no remedy serves it.
-- ARGV: prefix, id, target, component, strategy, reason, detail, call a person (0|1),
--       is audited (0|1)
-- include audit
-- include level
-- include refusal
local id, target, component, strategy, reason, detail =
  ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
is_audited = ARGV[9] == '1'
if ARGV[8] == '1' then raise_level(target, 3, detail) end
note_refusal(id, target, component, strategy, reason, 0, detail)
return 1
