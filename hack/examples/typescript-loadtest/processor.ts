type Context = { vars: Record<string, string> };

export async function choosePath(context: Context): Promise<void> {
  context.vars.path = 'typescript';
}
