// Opens HTML reports in Chromium: node test.mjs FOLDER SCREENSHOTS
// FOLDER has for each report NAME.html also NAME.json, the LoadTest, and NAME.report.json, the report as JSON.
// CHROMIUM is the path of the browser.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import axe from 'axe-core';
import { chromium } from 'playwright-core';

const [folder, screenshots] = process.argv.slice(2).map((path) => resolve(path));
const WIDTHS = [400, 1400];
const THEMES = ['light', 'dark'];
const PAPER = 718; // A4 with margins of 10 mm, in CSS pixels

let passed = 0;
let failed = 0;

async function test(name, run) {
  try {
    await run();
    passed += 1;
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED ${name}\n${error.stack ?? error}`);
  }
}

/** The value at a path such as `results.codes.0.count`. */
const at = (object, path) => path.split('.').reduce((value, key) => value?.[key], object);

/** The paths of all numbers that a report must show. */
function requiredPaths(status) {
  const { results, thresholds = [] } = status;
  const paths = thresholds.map((_, i) => `thresholds.${i}.held`);
  if (!results) return paths;
  const counts = ['requests', 'requestRate', 'errors', 'vusersCreated', 'vusersFailed', 'p95', 'p99'];
  const load = ['load.sent', 'load.createdVusers', 'load.plannedVusers'];
  paths.push('duration', ...[...counts, ...load].map((name) => `results.${name}`));
  for (const list of ['codes', 'errorsByKind']) paths.push(...(results[list] ?? []).map((_, i) => `results.${list}.${i}.count`));
  const quantiles = ['count', 'min', 'max', 'mean', 'p50', 'p90', 'p95', 'p99', 'p999'];
  for (const i of results.histograms.keys()) paths.push(...quantiles.map((name) => `results.histograms.${i}.${name}`));
  for (const [name, values] of Object.entries(results.series ?? {})) {
    if (!Array.isArray(values)) continue;
    values.forEach((value, i) => value !== null && paths.push(`results.series.${name}.${i}`));
  }
  return paths;
}

/** Opens a page, and records what it must not do. */
async function open(browser, url, options) {
  const context = await browser.newContext({ viewport: { width: 1400, height: 900 }, ...options });
  const page = await context.newPage();
  const problems = [];
  page.on('request', (request) => request.url() !== url && problems.push(`request of ${request.url()}`));
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && problems.push(`console: ${message.text()}`));
  page.on('pageerror', (error) => problems.push(`error: ${error.message}`));
  page.on('dialog', (dialog) => problems.push(`dialog: ${dialog.message()}`) && dialog.dismiss());
  await page.goto(url);
  return { page, context, problems };
}

async function assertNoOverflow(page) {
  const [content, window] = await page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    return [scrollWidth, clientWidth];
  });
  assert.ok(content <= window, `the page scrolls sideways: ${content} > ${window}`);
}

async function assertAccessible(page) {
  const { violations } = await page.evaluate(`${axe.source}; axe.run({ preload: false })`);
  const serious = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
  const describe = (node) => `${node.html} ${node.failureSummary}`;
  const shown = serious.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(describe).join('\n  ')}`);
  assert.deepEqual(shown, []);
}

async function assertNumbers(page, status, report) {
  const fields = await page.$$eval('[data-field]', (all) =>
    all.map(({ dataset, textContent }) => [dataset.field, dataset.value, textContent]),
  );
  for (const [path, value, text] of fields) {
    const exact = at(status, path) ?? at(report, path);
    assert.equal(value, String(exact ?? ''), path);
    if (typeof exact !== 'number') continue;
    assert.equal(Number.parseFloat(text.replaceAll(',', '')), exact, `${path} is shown as ${text}`);
  }
  const shown = new Set(fields.map(([path]) => path));
  const missing = requiredPaths(status).filter((path) => !shown.has(path));
  assert.deepEqual(missing, [], 'numbers are missing');
}

async function assertCursor(page, series) {
  const steps = series.requests.length;
  const cursors = () =>
    page.$$eval('.cursor', (all) => all.map((one) => (one.hidden ? null : Number.parseFloat(one.style.left))));
  const requests = () => page.textContent('#chart-requests .at');
  const expected = (step) => {
    const rate = series.requests[step] / series.stepSeconds;
    return new Intl.NumberFormat('en', { maximumFractionDigits: rate < 100 ? 1 : 0, roundingMode: 'halfEven' }).format(rate);
  };
  const assertAt = async (step) => {
    const isAtStep = (left) => left !== null && Math.abs(left - (step / steps) * 100) < 0.01;
    assert.ok((await cursors()).every(isAtStep), `all charts have the cursor at step ${step}: ${await cursors()}`);
    assert.equal(await requests(), `${expected(step)}/s`);
    const texts = await page.$$eval('.at', (all) => all.map((one) => one.textContent));
    assert.ok(texts.every((text) => text !== ''), 'all charts have a readout');
  };
  assert.ok((await cursors()).every((cursor) => cursor === null), 'there is no cursor at first');

  const plot = page.locator('#chart-errors .plot');
  const { width, height } = await plot.boundingBox();
  const step = Math.floor(steps * 0.7);
  await plot.hover({ position: { x: (width * (step + 0.5)) / steps, y: height / 2 } });
  await assertAt(step);

  await page.focus('#cursor');
  await page.keyboard.press('Home');
  await assertAt(0);
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowRight');
  await assertAt(2);
  await page.keyboard.press('End');
  await assertAt(steps - 1);
  assert.equal(await page.getAttribute('#cursor', 'aria-valuetext'), await page.textContent('output[for=cursor]'));
  await page.keyboard.press('Escape');
  assert.ok((await cursors()).every((cursor) => cursor === null), 'Escape removes the cursor');
}

/** Each plot has a line that is not empty. */
async function assertCharts(page, series) {
  const lines = await page.$$eval('.course .plot', (all) =>
    all.map((plot) => plot.querySelector('.line').getBoundingClientRect().width),
  );
  assert.equal(lines.length, series ? 5 : 0);
  assert.ok(lines.every((width) => width > 100), `${lines}`);
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });
mkdirSync(screenshots, { recursive: true });
const names = readdirSync(folder).filter((file) => file.endsWith('.html')).map((file) => file.slice(0, -5));
assert.ok(names.length > 0, `no reports in ${folder}`);
for (const name of names) {
  const url = pathToFileURL(join(folder, `${name}.html`)).href;
  const read = (file) => JSON.parse(readFileSync(join(folder, file), 'utf8'));
  const [{ status }, report] = [read(`${name}.json`), read(`${name}.report.json`)];
  const series = status.results?.series;

  for (const width of WIDTHS) {
    for (const colorScheme of THEMES) {
      const label = `${name} at ${width} px, ${colorScheme}`;
      const { page, context, problems } = await open(browser, url, { viewport: { width, height: 900 }, colorScheme });
      await page.screenshot({ path: join(screenshots, `${name}-${width}-${colorScheme}.png`), fullPage: true });
      await test(`${label}: does not scroll sideways`, () => assertNoOverflow(page));
      if (series) await test(`${label}: has a cursor`, () => assertCursor(page, series));
      await page.$$eval('details', (all) => all.forEach((one) => (one.open = true)));
      await test(`${label}: does not scroll sideways with all details`, () => assertNoOverflow(page));
      await test(`${label}: is accessible`, () => assertAccessible(page));
      await test(`${label}: makes no request and logs no error`, () => assert.deepEqual(problems, []));
      await context.close();
    }
  }

  const { page, context, problems } = await open(browser, url, {});
  await test(`${name}: has the numbers of the status`, () => assertNumbers(page, status, report));
  await test(`${name}: contains no image and no script of a test`, async () => {
    assert.equal(await page.locator('img, iframe, object, link[rel=stylesheet]').count(), 0);
    assert.equal(await page.locator('script').count(), 1);
    assert.deepEqual(problems, []);
  });
  const xml = readFileSync(join(folder, `${name}.xml`), 'utf8');
  await test(`${name}: is well-formed JUnit XML`, async () => {
    const counts = await page.evaluate((text) => {
      const document = new DOMParser().parseFromString(text, 'text/xml');
      const count = (selector) => document.querySelectorAll(selector).length;
      const suite = document.querySelector('testsuite');
      return [count('parsererror'), count('testcase'), Number(suite?.getAttribute('tests')), count('failure, error, skipped')];
    }, xml);
    const problems = [...xml.match(/failures="(\d+)" errors="(\d+)" skipped="(\d+)"/)].slice(1).map(Number);
    assert.deepEqual(counts, [0, counts[1], counts[1], problems.reduce((a, b) => a + b)]);
    assert.ok(counts[1] >= 3);
  });
  await context.close();

  const static_ = await open(browser, url, { javaScriptEnabled: false });
  await test(`${name}: has its charts without JavaScript`, () => assertCharts(static_.page, series));
  await static_.context.close();

  const print = await open(browser, url, { viewport: { width: PAPER, height: 1000 }, colorScheme: 'dark' });
  await test(`${name}: prints in light colors and cuts nothing`, async () => {
    await print.page.emulateMedia({ media: 'print', colorScheme: 'dark' });
    await print.page.evaluate(() => dispatchEvent(new Event('beforeprint')));
    await assertNoOverflow(print.page);
    const cut = await print.page.$$eval('.scroll, pre', (all) =>
      all.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.ariaLabel),
    );
    assert.deepEqual(cut, []);
    assert.equal(await print.page.evaluate(() => getComputedStyle(document.body).backgroundColor), 'rgb(255, 255, 255)');
    await print.page.pdf({ path: join(screenshots, `${name}.pdf`), format: 'A4', printBackground: false });
  });
  await print.context.close();
}
await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
