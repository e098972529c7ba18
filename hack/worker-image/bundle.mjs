// Bundles Artillery in place: bundle.mjs APP, where `npm ci` created APP/node_modules.
//
// `artillery run` reads hundreds of files in each thread, most of them for platforms (AWS Lambda, Azure) that a worker in a pod
// does not use. A bundle contains the same code in a few files, and omits code that nothing calls.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const app = path.resolve(process.argv[2]);
const require = createRequire(path.join(app, 'package.json'));
const acorn = require('acorn');
const esbuild = require('esbuild');
const artillery = path.join(app, 'node_modules/artillery');
const dist = path.join(artillery, 'dist');
const plugins = path.join(dist, 'builtin-packages');
const metrics = path.join(plugins, 'artillery-plugin-publish-metrics');
const out = path.join(dist, 'bundle');

// Replaces text in a source file. The build fails if a new version of Artillery no longer contains the text.
function edit(file, pairs) {
  let text = fs.readFileSync(file, 'utf8');
  for (const [from, to] of pairs) {
    if (text.split(from).length !== 2) throw new Error(`${file} does not have this text exactly once: ${from}`);
    text = text.replace(from, () => to);
  }
  fs.writeFileSync(file, text);
}

// Artillery imports the clients of AWS and Azure on every platform. Here they are imported only when they are used.
edit(path.join(dist, 'lib/launch-platform.js'), [
  ['import PlatformLambda from "./platform/aws-lambda/index.js";\n', 'let PlatformLambda;\n'],
  ['import PlatformAzureACI from "./platform/az/aci.js";\n', 'let PlatformAzureACI;\n'],
  [
    '    let l;\n    try {\n',
    `    if (launcherOpts.platform === 'aws:lambda') {
        PlatformLambda = (await import("./platform/aws-lambda/index.js")).default;
    }
    else if (launcherOpts.platform === 'az:aci') {
        PlatformAzureACI = (await import("./platform/az/aci.js")).default;
    }
    let l;
    try {
`,
  ],
]);

// Without a manifest oclif imports every command to find its name, including run-fargate with the whole AWS SDK.
const { Plugin } = require('@oclif/core');
const cli = new Plugin({ root: artillery, type: 'core', ignoreManifest: true, errorOnManifestCreate: true, respectNoCacheDefault: true });
await cli.load();
fs.writeFileSync(path.join(artillery, 'oclif.manifest.json'), JSON.stringify(cli.manifest));

const sources = (dir) => fs.readdirSync(dir, { recursive: true }).filter((f) => f.endsWith('.js')).map((f) => path.join(dir, f));
const entries = [
  path.join(artillery, 'bin/run'),
  ...sources(path.join(dist, 'lib/cmds')),
  ...sources(path.join(dist, 'lib/cli/hooks')),
  // worker/test imports the last two.
  ...['index', 'util', 'console-reporter', 'platform/local/worker', 'core/phases', 'dist'].map((f) => path.join(dist, `lib/${f}.js`)),
  ...fs.readdirSync(plugins).filter((p) => /^artillery-(plugin|engine)-/.test(p)).map((p) => path.join(plugins, p, 'dist/index.js')),
].filter((f) => fs.existsSync(f));
const named = (file) => path.relative(artillery, file).replace(/\.js$/, '').replaceAll('/', '.');

const shared = {
  absWorkingDir: app,
  bundle: true,
  platform: 'node',
  target: 'node24',
  keepNames: true,
  legalComments: 'none',
  logLevel: 'warning',
  metafile: true,
};
// cheerio's entry for Node adds fetching (undici and a table of text encodings); Artillery only calls load(text).
const alias = { cheerio: path.join(app, 'node_modules/cheerio/dist/browser/index.js') };

// Bundled code finds plugins, other files of Artillery and its worker by import.meta; each module keeps its own.
const keepPlace = {
  name: 'keep-place',
  setup(build) {
    build.onLoad({ filter: /\/node_modules\/artillery\/(dist\/|bin\/run$)/ }, ({ path: file }) => {
      const place = `new URL(${JSON.stringify(path.relative(out, file))}, import.meta.url)`;
      const contents = fs.readFileSync(file, 'utf8')
        .replaceAll('import.meta.url', `${place}.href`)
        .replaceAll('import.meta.filename', `${place}.pathname`)
        .replaceAll('import.meta.dirname', `new URL('.', ${place}).pathname.slice(0, -1)`);
      return { contents, loader: 'js' };
    });
  },
};

const bundled = await esbuild.build({
  ...shared,
  entryPoints: entries.map((file) => ({ in: file, out: named(file) })),
  outdir: out,
  format: 'esm',
  splitting: true,
  alias,
  external: ['@oclif/core', 'esbuild-wasm', 'playwright', '@playwright/*'],
  plugins: [keepPlace],
  banner: {
    // Not const, because some modules declare the same variables.
    js: `import { createRequire as $createRequire } from 'node:module';
var __filename = import.meta.filename, __dirname = import.meta.dirname, require = $createRequire(import.meta.url);`,
  },
});
for (const file of Object.keys(bundled.metafile.outputs)) removeRedundantNames(path.join(app, file));

// esbuild (keepNames) names each function by a call whenever the function is created, which takes some percent of the CPU time of a
// test. Most functions have the name anyway: by their declaration, or by the variable or property that they are assigned to
// (https://tc39.es/ecma262/#sec-runtime-semantics-namedevaluation). These calls are removed.
function removeRedundantNames(file) {
  const text = fs.readFileSync(file, 'utf8');
  const cuts = [];
  const visit = (node, name) => {
    const call = node.type === 'ExpressionStatement' ? node.expression : node;
    if (call.type === 'CallExpression' && call.callee.name === '__name') {
      const [target, given] = call.arguments;
      if (node !== call && target.type === 'Identifier' && target.name === given.value) cuts.push([node.start, node.end]);
      const anonymous = target.type === 'ArrowFunctionExpression' || (target.type === 'FunctionExpression' && !target.id);
      if (node === call && anonymous && name === given.value) cuts.push([node.start, target.start], [target.end, node.end]);
    }
    for (const [key, child] of Object.entries(node)) {
      for (const part of Array.isArray(child) ? child : [child]) {
        if (typeof part?.type === 'string') visit(part, nameOfValue(node, key));
      }
    }
  };
  visit(acorn.parse(text, { ecmaVersion: 'latest', sourceType: 'module' }));
  cuts.sort(([a], [b]) => a - b);
  const starts = [0, ...cuts.map(([, end]) => end)];
  fs.writeFileSync(file, starts.map((start, i) => text.slice(start, cuts[i]?.[0])).join(''));
}

// Returns the name that JavaScript gives an anonymous function at this place.
function nameOfValue(node, key) {
  if (node.type === 'VariableDeclarator' && key === 'init') return node.id.name;
  if (node.type === 'AssignmentExpression' && key === 'right' && node.operator === '=') return node.left.name;
  if (node.type === 'Property' && key === 'value' && !node.computed) return node.key.name ?? node.key.value;
  return undefined;
}

const exportsOf = (file) => Object.values(bundled.metafile.outputs)
  .find((o) => o.entryPoint && path.resolve(app, o.entryPoint) === file).exports;
for (const file of entries) {
  const to = JSON.stringify(`./${path.relative(path.dirname(file), path.join(out, `${named(file)}.js`))}`);
  const lines = [`export * from ${to};`];
  if (exportsOf(file).includes('default')) lines.push(`export { default } from ${to};`);
  fs.writeFileSync(file, `${lines.join('\n')}\n`);
}

// publish-metrics is CommonJS and require()s the reporter that the test names: one file for each, so that it still does.
const parts = ['index', ...fs.readdirSync(path.join(metrics, 'lib')).map((f) => `lib/${f.replace(/\.js$/, '')}`), 'lib/open-telemetry/translators/vendor-adot']
  .filter((p) => p !== 'lib/util');
await esbuild.build({
  ...shared,
  entryPoints: parts.map((p) => ({ in: require.resolve(path.join(metrics, p)), out: path.relative(metrics, require.resolve(path.join(metrics, p))).replace(/\.js$/, '') })),
  outdir: metrics,
  allowOverwrite: true,
  // Datadog's client alone is 24 MB. Lines stay short, since node shows the line that an error came from.
  minifyWhitespace: true,
  lineLimit: 200,
  format: 'cjs',
  alias,
  plugins: [{
    name: 'parts',
    setup: (build) => build.onResolve({ filter: /^\.\/lib\// }, ({ path: to, importer }) =>
      path.dirname(importer) === metrics ? { path: to, external: true } : undefined),
  }],
});

// Only packages that the bundle still looks for at run time stay in node_modules, with what those need.
const modules = path.join(app, 'node_modules');
const keep = new Set([artillery]);
function visit(name, from) {
  const dir = createRequire(from).resolve.paths(name).map((p) => path.join(p, name)).find((p) => fs.existsSync(p));
  if (!dir || keep.has(dir)) return;
  keep.add(dir);
  const manifest = path.join(dir, 'package.json');
  const { dependencies, optionalDependencies } = JSON.parse(fs.readFileSync(manifest));
  for (const needed of Object.keys({ ...dependencies, ...optionalDependencies })) visit(needed, manifest);
}
for (const name of ['@oclif/core', '@oclif/plugin-help', '@oclif/plugin-not-found', 'esbuild-wasm']) visit(name, path.join(artillery, 'package.json'));
for (const name of fs.readdirSync(modules)) {
  const packages = name.startsWith('@') ? fs.readdirSync(path.join(modules, name)).map((n) => path.join(name, n)) : [name];
  for (const p of packages) if (!keep.has(path.join(modules, p))) fs.rmSync(path.join(modules, p), { recursive: true });
}

// In dist only the entry points are left: what they were made of is in the bundle.
const used = new Set(entries);
for (const dir of [path.join(dist, 'lib'), plugins]) {
  for (const file of sources(dir)) if (!used.has(file) && !file.startsWith(metrics)) fs.rmSync(file);
}
const part = new Set(parts.map((p) => require.resolve(path.join(metrics, p))));
for (const file of sources(metrics)) if (!part.has(file)) fs.rmSync(file);
