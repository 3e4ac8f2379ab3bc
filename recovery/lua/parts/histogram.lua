-- A histogram: how many by upper bound, and the sum; bounds comma separated, in seconds.
local function measure(bounds, bucket_name, sum_name, what, seconds)
  local bucket = '+Inf'
  for bound in string.gmatch(bounds, '[^,]+') do
    if tonumber(seconds) <= tonumber(bound) then bucket = bound break end
  end
  redis.call('HINCRBY', key('counters'), bucket_name .. '|' .. what .. '|' .. bucket, 1)
  redis.call('HINCRBYFLOAT', key('counters'), sum_name .. '|' .. what, seconds)
end
