export async function begin(context: { vars: Record<string, unknown> }) {
  context.vars.begun = true;
}
