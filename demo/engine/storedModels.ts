import { signal } from "@preact/signals";
import { deleteModel, listModels, type QuireError, type StoredModel } from "quire";
import { toQuireError } from "../text/errorAdvice.ts";

/** The models in this browser's storage, newest use first. */
export class StoredModels {
  /** Undefined until the first look. */
  readonly list = signal<readonly StoredModel[] | undefined>(undefined);
  readonly error = signal<QuireError | undefined>(undefined);
  /** URL of the model that is being deleted. */
  readonly deleting = signal<string | undefined>(undefined);

  async refresh(): Promise<void> {
    try {
      const found = await listModels();
      this.list.value = found.sort((a, b) => b.lastUsed - a.lastUsed);
      this.error.value = undefined;
    } catch (error) {
      this.error.value = toQuireError(error);
    }
  }

  /** Resolves to whether it is gone. */
  async delete(url: string): Promise<boolean> {
    this.deleting.value = url;
    try {
      await deleteModel(url);
      await this.refresh();
      return true;
    } catch (error) {
      this.error.value = toQuireError(error);
      return false;
    } finally {
      this.deleting.value = undefined;
    }
  }
}
