import { expect, type Page } from '@playwright/test';

type Step = (name: string, actions: () => Promise<unknown>) => Promise<void>;

export async function visit(page: Page, context: { vars: object }, events: unknown, { step }: { step: Step }): Promise<void> {
  await step('open', async () => {
    await page.goto('/page?id=7');
    await expect(page.locator('h1')).toHaveText('A page');
  });
  await step('press', async () => {
    await page.getByRole('button').click();
    await expect(page.locator('output')).toHaveText('pressed');
  });
  await page.waitForTimeout(500);
  await page.goto('/page/2');
}
