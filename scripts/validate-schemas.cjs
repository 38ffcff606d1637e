// Run by scripts/validate-schemas: node validate-schemas.cjs EXPORTED GOLDEN
const fs = require('node:fs');
const path = require('node:path');
const Ajv = require('ajv');
const Ajv2020 = require('ajv/dist/2020');
const addFormats = require('ajv-formats');
const { Parser, DiagnosticSeverity } = require('@asyncapi/parser');

const [exported, golden] = process.argv.slice(2);
const read = (...parts) => JSON.parse(fs.readFileSync(path.join(...parts), 'utf8'));
const failures = [];
const check = (holds, what) => { if (!holds) failures.push(what); };

const STRICT = { strict: true, strictTypes: true, strictTuples: true, strictRequired: true, allErrors: true };
const ajv = addFormats(new Ajv2020(STRICT));
const errors = (validate) => ajv.errorsText(validate.errors);

// Every JSON Schema compiles in strict mode, which checks it against the meta-schema, too.
const compiled = new Map();
for (const name of fs.readdirSync(path.join(exported, 'schemas'), { recursive: true })) {
  if (!name.endsWith('.json')) continue;
  const schema = read(exported, 'schemas', name);
  try {
    compiled.set(name.replace(/\.json$/, ''), { schema, validate: ajv.compile(schema), used: name === 'metadata.json' });
  } catch (error) {
    failures.push(`${name}: ${error.message}`);
  }
}

// What a value of the same place must not be.
const wrong = (value) => (typeof value === 'string' ? 1 : typeof value === 'number' ? 'many' : typeof value === 'boolean' ? 'yes' : 7);

function* broken(root, schema, document, set, value = root) {
  for (; schema && schema.$ref; ) schema = document.$defs[schema.$ref.split('/').pop()];
  yield ['another type', set(wrong(value))];
  if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) {
      yield* broken(root, schema?.items, document, (to) => set(value.with(index, to)), item);
    }
  } else if (typeof value === 'object') {
    for (const [key, item] of Object.entries(value)) {
      const { [key]: _, ...rest } = value;
      if (schema?.required?.includes(key)) yield [`no ${key}`, set(rest)];
      const inner = schema?.properties?.[key] ?? schema?.additionalProperties;
      yield* broken(root, inner || undefined, document, (to) => set({ ...value, [key]: to }), item);
    }
  }
}

const report = () => {
  for (const failure of failures.slice(0, 20)) console.error(`validate-schemas: ${failure}`);
  console.error(`validate-schemas: ${failures.length} failures`);
  process.exit(1);
};

const asyncapi = read(exported, 'asyncapi.json');
new Parser().parse(JSON.stringify(asyncapi)).then(({ document, diagnostics }) => {
  const of = (severity) => diagnostics.filter((one) => one.severity === severity);
  for (const one of of(DiagnosticSeverity.Error)) failures.push(`asyncapi.json at ${one.path.join('/')}: ${one.message}`);
  if (!document || failures.length > 0) report();

  // The payloads of the AsyncAPI document say the same in draft-07.
  const draft07 = addFormats(new Ajv({ strict: false, validateSchema: false }));
  draft07.addSchema({ components: asyncapi.components }, 'asyncapi');
  const message = (name) => draft07.compile({ $ref: `asyncapi#/components/messages/${name}/payload` });

  const counts = { valid: 0, refused: 0 };
  for (const aggregate of fs.readdirSync(golden)) {
    if (!fs.statSync(path.join(golden, aggregate)).isDirectory()) continue;
    for (const file of fs.readdirSync(path.join(golden, aggregate))) {
      const [type, version] = file.replace(/\.json$/, '').split('-');
      const found = compiled.get(path.join(aggregate, `${type}.${version}`));
      check(found, `${file} has no schema`);
      if (!found) continue;
      found.used = true;
      const inMessage = message(`${type}.${version}`);
      for (const payload of read(golden, aggregate, file)) {
        counts.valid += 1;
        check(found.validate(payload), `${file} does not fit its schema: ${errors(found.validate)}`);
        check(inMessage(payload), `${file} does not fit its message: ${errors(inMessage)}`);
        for (const [how, mutant] of broken(payload, found.schema, found.schema, (to) => to)) {
          counts.refused += 1;
          const text = () => `${file} with ${how} is accepted: ${JSON.stringify(mutant)}`;
          check(!found.validate(mutant), `${text()} by the schema`);
          check(!inMessage(mutant), `${text()} by the message`);
        }
      }
    }
  }
  for (const [name, { used }] of compiled) check(used, `${name} has no golden file`);
  check(counts.refused > 3 * counts.valid, 'too few broken payloads were tried');
  if (failures.length > 0) report();

  const channels = document.channels().all().length;
  console.log(
    `ajv: ${compiled.size} schemas, ${counts.valid} golden payloads accepted, ${counts.refused} broken ones refused\n` +
      `@asyncapi/parser: version ${document.version()}, ${channels} channels, ${document.messages().all().length} messages, ` +
      `no errors, ${of(DiagnosticSeverity.Warning).length} warnings`,
  );
  for (const one of of(DiagnosticSeverity.Warning)) console.log(`  ${one.path.join('/')}: ${one.message}`);
});
