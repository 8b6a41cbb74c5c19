-- How many clients all instances have but one, and the epoch.
-- KEYS: instances, state
-- ARGV: the one, prefix of the keys of clients
local count = 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    local id = all[i] .. '#' .. all[i + 1]
    if id ~= ARGV[1] then count = count + redis.call('HLEN', ARGV[2] .. id) end
end
return {count, redis.call('HGET', KEYS[2], 'epoch') or ''}
