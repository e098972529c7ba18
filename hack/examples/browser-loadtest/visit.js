const { expect } = require('@playwright/test');

module.exports.visit = async (page, context, events, { step }) => {
  await step('open', async () => {
    await page.goto('/');
    await expect(page.getByRole('listitem')).toHaveCount(3);
  });
  await step('add_to_basket', async () => {
    await page.getByRole('button', { name: 'Add Tea' }).click();
    await expect(page.getByRole('status')).toHaveText('1 in the basket');
  });
};
