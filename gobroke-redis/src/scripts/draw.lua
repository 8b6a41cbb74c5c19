-- Draws a number that was not drawn before: the last one plus one, or the time in microseconds.
-- KEYS: state
local time = redis.call('TIME')
local drawn = math.max((tonumber(redis.call('HGET', KEYS[1], 'drawn')) or 0) + 1, time[1] * 1000000 + time[2])
redis.call('HSET', KEYS[1], 'drawn', string.format('%.0f', drawn))
return drawn
