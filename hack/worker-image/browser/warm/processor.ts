import http from 'node:http';
import { expect } from '@playwright/test';

export async function open(page: any, context: unknown, events: unknown, test: any) {
  const server = http.createServer((request, response) => response.end('<h1>x</h1>'));
  await new Promise((resolve) => server.listen(18080, '127.0.0.1', () => resolve(undefined)));
  await test.step('open', async () => {
    await page.goto('/');
    await expect(page.locator('h1')).toHaveText('x');
  });
  server.close();
}
