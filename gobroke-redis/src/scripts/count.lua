-- How many clients all instances have but one.
-- KEYS: instances
-- ARGV: the one, prefix of the keys of clients
local count = 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    local id = all[i] .. '#' .. all[i + 1]
    if id ~= ARGV[1] then count = count + redis.call('HLEN', ARGV[2] .. id) end
end
return count
