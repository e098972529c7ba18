import { chosen, type Vars } from './chosen';

export async function choose(context: { vars: Vars }): Promise<void> {
  context.vars.chosen = chosen;
}
