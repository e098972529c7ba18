// Validates CycloneDX JSON against its schema, and that every reference within it exists: node validate.mjs FILE...
import { readFileSync } from "node:fs";
import { Spec, Validation } from "@cyclonedx/cyclonedx-library";

for (const file of process.argv.slice(2)) {
  const text = readFileSync(file, "utf8");
  const bom = JSON.parse(text);
  const validator = new Validation.JsonStrictValidator(Object.values(Spec.Version).find((v) => v === bom.specVersion));
  const problems = (await validator.validate(text)) ?? [];
  const known = new Set([bom.metadata.component, ...bom.components].map((component) => component["bom-ref"]));
  const used = bom.dependencies.flatMap(({ ref, dependsOn }) => [ref, ...dependsOn]);
  problems.push(...used.filter((ref) => !known.has(ref)).map((ref) => `unknown reference ${ref}`));
  for (const problem of problems) console.error(`${file}: ${JSON.stringify(problem)}`);
  if (problems.length > 0) process.exitCode = 1;
}
