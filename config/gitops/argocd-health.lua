-- The health of a LoadTest for Argo CD: see docs/operator/gitops.md.
local function condition(name)
  for _, c in ipairs(obj.status.conditions or {}) do
    if c.type == name then
      return c
    end
  end
end

local status = obj.status
if status == nil or status.phase == nil or status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "Waiting for the operator" }
end
local ready = condition("Ready")
local message = ready and ready.message or status.phase
if condition("Stalled") then
  return { status = "Degraded", message = message }
end
if status.verdict ~= nil then
  -- Tests that ended under an older operator have no condition Ready.
  return { status = status.verdict == "Passed" and "Healthy" or "Degraded", message = message }
end
return { status = status.phase == "Suspended" and "Suspended" or "Progressing", message = message }
