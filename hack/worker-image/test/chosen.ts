export type Vars = Record<string, string>;
export const chosen: string = 'ts';
