// Prints what 1, 2, 3, 7 and 16 workers make of one test, with one thread each and with two.
//   ARTILLERY=path/to/node_modules node divide-table.mjs [WORKERS..]
import { count, everyPhase, PHASES, runTest } from './divide-pods.mjs';

const names = PHASES.map(({ name }) => name);
const print = (...cells) => console.log(cells.map((cell) => String(cell).padStart(11)).join(''));
const numbers = process.argv.slice(2).map(Number);
print('workers', 'threads', ...names, 'all', 'rows', 'once', 'by one pod', 'failed');
for (const threads of [1, 2]) {
  for (const workers of numbers.length > 0 ? numbers : [1, 2, 3, 7, 16]) {
    const { requests, pods } = await runTest({ script: everyPhase(), workers, threads });
    const phases = count(requests.map(({ phase }) => phase));
    const rows = Object.values(count(requests.map(({ row }) => row)));
    const users = Object.keys(count(requests.map(({ row, pod }) => `${row} ${pod}`))).length;
    const failed = pods.filter(({ code }) => code !== 0).length;
    const once = rows.filter((times) => times === 1).length;
    const inPhases = names.map((name) => phases[name] ?? 0);
    print(workers, threads, ...inPhases, requests.length, rows.length, once, users === rows.length, failed);
  }
}
