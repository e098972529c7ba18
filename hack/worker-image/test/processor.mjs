const chosen = await Promise.resolve('esm');
export async function choose(context) {
  context.vars.chosen = chosen;
}
