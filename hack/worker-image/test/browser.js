const { expect } = require('@playwright/test');

module.exports.visit = async (page, context, events, { step }) => {
  await step('open', () => page.goto('/page?id=7'));
  await expect(page.locator('h1')).toHaveText(process.env.HEADING ?? 'A page', { timeout: 1000 });
};
